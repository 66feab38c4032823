"""Image files and image arrays.

Arrays: `resize`, `degrade` (blur and downscaling), `metrics` (PSNR, SSIM), `postprocessing`,
`synthetic` (test images); `torch_ops` has the same operations for batches in torch.

Files: `reading` and `writing` convert a file to a `picture.Picture` and back; `input_files` finds
them, `output_paths` plans the outputs, and `file_upscaling` upscales one. File formats and their
metadata are in `formats`, which only `imaging` imports.
"""
