"""``formidler demo``: a day among six kommuner, played from outside over HTTP and judged by what can be checked."""
