"""Images: data sources, value ranges, test sets and corruptions.

Start with `sources.load` and `sources.register` (data sources), `ranges.prepare` (the only conversion to model space),
`test_set_names.expand`, `test_sets.change` and `batching.padded`.
"""
