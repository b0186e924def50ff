"""HDF5 files of robomimic, LIBERO and ALOHA, told apart by what they hold; how HDF5 is opened and read in slices."""
