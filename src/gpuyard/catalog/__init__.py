"""Facts as data: card models, images, price books."""
