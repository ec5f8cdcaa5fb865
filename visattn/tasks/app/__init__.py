"""`visattn app`: a page in the browser that captions or classifies photographs and shows the maps."""
