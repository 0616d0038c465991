"""The contract: what crosses a wire, and nothing that does anything.

* ``errors``: every error of ours, in one tree. ``names``: ids and numbers, parsed once. ``model``: the base of what is sent.
* ``records``: one model for each Avro schema in ``avro``; ``registry`` knows the released schemas and ``codec`` makes bytes.
* ``forsendelse`` and ``kvittering``: what a sender signs about a package, and an issuer about what became of it.
* ``soknad_json``, ``vedlegg_json``, ``digisos_soker_json``: NAV's own documents, on ``documents``; ``livssituasjon`` and
  ``okonomi`` are parts of the first.
* ``examples``, ``example_okonomi``, ``example_files``: invented søknader, for the demo, the simulator and the tests.
"""
