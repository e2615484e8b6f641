"""What others may ask of the governor, and the documents it answers with."""
