"""Find studies, their files and patients below a folder or in a manifest."""
