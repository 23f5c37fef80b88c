"""CTranslate2's files, and Whisper in them."""
