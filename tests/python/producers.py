"""Objects of no framework that export tensors by DLPack."""


class OnlyDlpack:
    """Shows nothing of a tensor or an array but DLPack."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **options):
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()
