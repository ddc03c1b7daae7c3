"""Code that knows neither images nor networks: errors, files, devices, memory, processes, declared settings.

Start with `registry.Registry` (open lists that plug-ins extend), `fields.field` (one declared setting),
`parallel.over_seeds` (the map over seeds), `files.write_json`, `results.Results` (read by reports),
`cluster.initialize` and `exit_codes.of`.
"""
