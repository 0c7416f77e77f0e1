"""Files in object storage and on web servers, and their copies on nodes."""
