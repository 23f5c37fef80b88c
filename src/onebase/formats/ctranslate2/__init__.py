"""Reads Whisper models from CTranslate2 files."""
