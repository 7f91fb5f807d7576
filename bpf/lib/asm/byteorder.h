/* BPF objects are little endian, whatever machine builds them. */
#include <linux/byteorder/little_endian.h>
