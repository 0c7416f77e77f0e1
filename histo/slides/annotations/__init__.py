"""Areas drawn on slides: shapes, label maps, tile tables."""
