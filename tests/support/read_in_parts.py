"""Reads a folder of images as one of several processes; prints how many it decoded, and what it has of all.

python -m tests.support.read_in_parts FOLDER COORDINATOR COUNT INDEX
"""

import json
import sys

import numpy as np
from PIL import Image

from lcgen.data import own_images, pictures
from lcgen.runtime import cluster, parallel


def main() -> None:
  folder, coordinator, count, index = sys.argv[1:]
  cluster.initialize(False, coordinator, int(count), int(index), timeout=60)
  decoded, convert = [], Image.Image.convert
  Image.Image.convert = lambda image, mode: decoded.append(image) or convert(image, mode)
  images = own_images.read_folder(folder, pictures.Look()).training.images
  parallel._EXCHANGED_BYTES = 256  # wide rows take several exchanges
  wide = parallel.read_in_parts(50, lambda rows: {"wide": 2**40 + np.array(rows)})["wide"]
  print(json.dumps({"decoded": len(decoded), "values": images[:, 3, 3, 0].tolist(), "wide": wide.tolist()}))


if __name__ == "__main__":
  main()
