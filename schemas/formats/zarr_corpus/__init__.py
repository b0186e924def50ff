"""Replay buffers in zarr, in the layout of diffusion policy and UMI."""
