"""How the playroom looks: meshes, textures and the renderer."""
