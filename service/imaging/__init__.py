"""Pictures and maps as NumPy arrays: decode, letterbox, depth, mattes, people, refocus.

Pure functions; nothing here knows of HTTP, Triton or torch. Images are uint8 (H, W, 3) sRGB in the displayed
orientation, maps float32 (H, W), sizes (height, width).
"""
