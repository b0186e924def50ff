"""A phone's screen with apps of own design, drawn with Pillow: open the right one."""
