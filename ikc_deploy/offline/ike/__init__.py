"""IKE, the invertible kernel estimator: one image trains one invertible network.

Chang, Chiu and Huang, "Find the way back". Its only input is the LR image: no other image, no
family of kernels, no weights. Run forward, the network downscales; run backward, it upscales:

    forward:    image -> small image, rest            the same number of samples
    backward:   small image, rest -> image            the exact inverse
    fit:        patches of the small image of the LR must resemble patches of the LR
    result:     backward(LR, U(rest of the LR))       U upsamples the rest

Because natural images repeat themselves across scales, the downscaling under which the LR image
resembles itself is the one that produced it (the principle of KernelGAN). No kernel is explicit, so
the downscaling need not be linear. `docs/offline.md` has the purpose and the effect of each loss.
"""

from ikc_deploy.offline.ike.ike_fit import IkeFit
from ikc_deploy.offline.ike.ike_settings import IkeSettings

__all__ = ["IkeFit", "IkeSettings"]
