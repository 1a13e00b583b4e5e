"""Two runs compared, and ordinals compared with their siblings."""
