"""IKE, the invertible kernel estimator: one picture trains one invertible network.

Chang, Chiu and Huang, "Find the way back". Nothing is known but the LR image: no other picture,
no family of kernels, no weights. Run forward, the network shrinks; run backward, it upscales:

    forward:    image -> small image, rest            the same number of samples
    backward:   small image, rest -> image            exactly undone
    fit:        the small image of the LR must look like the LR, patch for patch
    result:     backward(LR, U(rest of the LR))       U upsamples what the small image leaves over

Because natural images repeat themselves across scales, the downscaling under which the LR image
resembles itself is the one that produced it (the principle of KernelGAN). No kernel is explicit, so
the downscaling need not be linear. `docs/offline.md` has the purpose and the effect of each loss.
"""

from ikc_deploy.offline.ike.ike_fit import IkeFit, fit
from ikc_deploy.offline.ike.ike_settings import IkeSettings

__all__ = ["IkeFit", "IkeSettings", "fit"]
