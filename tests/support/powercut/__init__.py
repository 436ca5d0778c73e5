"""Power cuts without a virtual machine: what was written and synced is recorded, and cut anywhere.

`recorder` notes stores, flushes, syncs and names while the real code runs on a tmpfs; `images`
builds what a cut after any of them may leave; `model` knows what was promised by then; `scripts`
runs operations by seed; `checks` opens the images with the real code and compares; `runs` makes
chains of it, `headers` does the same for the attributes of pool files, `threads` for threads beside
each other.
"""
