"""LeRobot data sets of versions 2.0, 2.1 and 3.0: rows in Parquet, pictures in it or in videos beside it."""
