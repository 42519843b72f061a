/* libsegprior: the whole public C interface. */
#ifndef SEGPRIOR_H
#define SEGPRIOR_H

#include "segprior/core.h"
#include "segprior/csr.h"
#include "segprior/losses.h"
#include "segprior/metrics.h"
#include "segprior/proposals.h"
#include "segprior/softcut.h"
#include "segprior/softmax.h"

#endif
