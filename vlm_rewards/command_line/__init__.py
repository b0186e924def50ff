"""The command line apart from the commands: its parser, options made of settings, and words that several commands say."""
