"""Turns the files of a finished run into tables, figures and an HTML page, whose markup is in `templates/`.

`report.build`, `report.build_rule` and `report.build_tables` write the reports of a run, of a rule and of a study;
`expectations.check` holds a run against its config, and `compare_runs.main` puts several runs side by side. This wing
imports no JAX and no other wing but `runtime`.
"""
