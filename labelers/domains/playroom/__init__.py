"""A furnished room seen through the agent's eyes, drawn with Panda3D's software renderer: find, lift and place toys."""
