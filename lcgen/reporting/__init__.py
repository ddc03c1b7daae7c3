"""Tables, figures and the HTML page, made from the files of a run."""
