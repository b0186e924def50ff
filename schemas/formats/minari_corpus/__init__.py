"""Data sets of Minari in its three storages: HDF5, Arrow and Parquet."""
