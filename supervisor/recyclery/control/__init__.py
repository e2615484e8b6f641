"""What others may ask of the governor on its unix socket, and the documents it answers with."""
