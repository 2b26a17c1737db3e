"""Virtual time, and machines, disks and networks in it: nothing here knows what runs on them."""
