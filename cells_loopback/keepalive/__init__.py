"""Stay logged in while nobody looks: when to renew, by whom, and what follows when that ends."""
