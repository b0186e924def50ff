"""Reads HDF5 files of robomimic, LIBERO and ALOHA, distinguished by their content."""
