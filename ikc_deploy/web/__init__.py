"""The web page of ikc-web: upload, upscaling, comparison with bicubic, and the estimated blur."""
