"""`/admin/...`: the operations of the command line over HTTP, for keys with the scope `admin` or `manage`."""
