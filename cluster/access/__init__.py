"""Users, access keys and policies: registers of the system set, and a cache of them that revocation reaches within its lease."""
