"""Replay buffers in zarr, as diffusion policy and UMI keep them."""
