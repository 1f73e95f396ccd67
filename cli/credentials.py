"""Access keys of the cluster in S3's words: the root pair, which may do everything, and what policies allow to users."""

from cluster.node import Node
from s3.errors import S3Error
from s3.policy import EVERYTHING, grants_of
from s3.request import Credential, Identity

ACCOUNT = "root"  # owns every bucket; users belong to it


class NodeCredentials:
    """s3.request.Credentials of a node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def find(self, access_key: str) -> Credential | None:
        """See Credentials."""
        root = self._node.root_key
        if root is None:
            raise S3Error("ServiceUnavailable", headers=((b"Retry-After", b"5"),))
        if access_key == root.access_key:
            identity = Identity(access_key=access_key, owner=ACCOUNT, grants=EVERYTHING)
            return Credential(identity=identity, secret=root.secret_key)
        holder = await self._node.credentials.find(access_key)
        if holder is None:
            return None
        grants = grants_of(holder.documents)
        identity = Identity(access_key=access_key, owner=ACCOUNT, grants=grants)
        return Credential(identity=identity, secret=holder.secret)
