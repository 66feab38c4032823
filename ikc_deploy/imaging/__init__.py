"""Images in files: reading, writing, and upscaling from file to file."""
