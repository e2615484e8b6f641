"""A stand-in for the tax office's web site: logins, a document table drawn by JavaScript, and trouble."""
