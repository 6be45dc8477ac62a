"""SQL files and what they cannot do in SQL; read by ``store/migration.py``."""
