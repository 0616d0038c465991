-- The status store, version 1. Released: never edited, only added to (see broker/sql/sqlite.py).

-- Every record as it was read, in the order it was read. Packages lie sealed, as they came.
CREATE TABLE innkommet (
    nr INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    partisjon INTEGER NOT NULL,
    posisjon INTEGER NOT NULL,          -- Kafka's offset
    digisos_id TEXT,                    -- null when the record did not say
    fakta_id TEXT,                      -- null when there was no fact in it
    tidsstempel_ms INTEGER NOT NULL,    -- Kafka's timestamp
    nokkel BLOB NOT NULL,
    verdi BLOB NOT NULL,
    headere TEXT NOT NULL,              -- JSON: [[name, value as latin-1], …]
    utfall TEXT NOT NULL,
    UNIQUE (topic, partisjon, posisjon)
);
CREATE INDEX innkommet_fakta ON innkommet (digisos_id, fakta_id);

-- What is known about each søknad, and what of it is searched for. Can be thrown away and rebuilt.
CREATE TABLE soknad (
    digisos_id TEXT PRIMARY KEY,
    eier TEXT,                          -- HMAC of the owner; null until AKSEPTERT has come
    kommunenummer TEXT,
    status TEXT,
    akseptert_ms INTEGER,
    levert INTEGER NOT NULL,            -- 1 when the fagsystem has it
    venter INTEGER NOT NULL,            -- facts that wait
    tilstand TEXT NOT NULL,             -- JSON: facts.SoknadState
    sist_status BLOB                    -- the latest status record that was queued
);
CREATE INDEX soknad_eier ON soknad (eier, akseptert_ms);
CREATE INDEX soknad_ubekreftet ON soknad (akseptert_ms) WHERE levert = 0;
CREATE INDEX soknad_venter ON soknad (venter) WHERE venter > 0;

-- Where to read on.
CREATE TABLE posisjon (
    topic TEXT NOT NULL,
    partisjon INTEGER NOT NULL,
    neste INTEGER NOT NULL,
    PRIMARY KEY (topic, partisjon)
) WITHOUT ROWID;

-- What must still be published.
CREATE TABLE utboks (
    nr INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    nokkel BLOB NOT NULL,
    verdi BLOB NOT NULL,
    headere TEXT NOT NULL
);
CREATE INDEX utboks_nokkel ON utboks (topic, nokkel);
