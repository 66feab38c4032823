"""Image files and image arrays: read, write, upscale, resize, degrade and compare."""
