"""Everything below the models that knows no mathematics: errors, files, devices, memory, interruption, exit codes."""
