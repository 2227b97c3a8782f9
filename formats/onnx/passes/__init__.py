"""Graph passes, one file each: numbered rules, a count of what was rewritten."""
