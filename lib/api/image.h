/* SPDX-License-Identifier: MIT */
#ifndef ROUSE_API_IMAGE_H
#define ROUSE_API_IMAGE_H

#include "image/image_reader.h"

/** What rouse_image_open() makes. */
struct rouse_image {
	struct rouse_source *source;
	struct rouse_reader *reader;
};

#endif
