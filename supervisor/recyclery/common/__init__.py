"""What every folder may use: units, statistics, exit codes. Imports nothing of Recyclery."""
