/* What the bindings are made from: DPDK's headers, and the functions of shim.c
 * that stand for DPDK's inline functions and macros. */
#ifndef DPDK_SHIM_H
#define DPDK_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rte_common.h>
#include <rte_config.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_hash.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_ring_elem.h>
#include <rte_version.h>

/* Where the fields of an mbuf are. struct rte_mbuf itself stays opaque to Rust:
 * its nesting of unions differs between releases, these numbers are right for
 * the headers at hand. The widths are asserted in shim.c. */
enum {
	DPDK_MBUF_SIZE = sizeof(struct rte_mbuf),
	DPDK_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
	DPDK_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
	DPDK_MBUF_REFCNT = offsetof(struct rte_mbuf, refcnt),
	DPDK_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
	DPDK_MBUF_PORT = offsetof(struct rte_mbuf, port),
	DPDK_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags),
	DPDK_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
	DPDK_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
	DPDK_MBUF_VLAN_TCI = offsetof(struct rte_mbuf, vlan_tci),
	DPDK_MBUF_HASH = offsetof(struct rte_mbuf, hash),
	DPDK_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
	DPDK_MBUF_NEXT = offsetof(struct rte_mbuf, next),
	DPDK_MBUF_TX_OFFLOAD = offsetof(struct rte_mbuf, tx_offload),
	DPDK_MBUF_L2_LEN_SHIFT = RTE_MBUF_L2_LEN_OFS,
	DPDK_MBUF_L2_LEN_BITS = RTE_MBUF_L2_LEN_BITS,
	DPDK_MBUF_L3_LEN_SHIFT = RTE_MBUF_L3_LEN_OFS,
	DPDK_MBUF_L3_LEN_BITS = RTE_MBUF_L3_LEN_BITS,
	DPDK_PKTMBUF_HEADROOM = RTE_PKTMBUF_HEADROOM,
	DPDK_MAX_ETHPORTS = RTE_MAX_ETHPORTS,
	DPDK_MEMPOOL_CACHE_MAX = RTE_MEMPOOL_CACHE_MAX_SIZE,
	DPDK_MAX_LCORE = RTE_MAX_LCORE,
};

/* Macros that bindgen does not evaluate, as constants. */
static const uint64_t DPDK_RX_IP_CKSUM_MASK = RTE_MBUF_F_RX_IP_CKSUM_MASK;
static const uint64_t DPDK_RX_IP_CKSUM_GOOD = RTE_MBUF_F_RX_IP_CKSUM_GOOD;
static const uint64_t DPDK_RX_IP_CKSUM_BAD = RTE_MBUF_F_RX_IP_CKSUM_BAD;
static const uint64_t DPDK_RX_L4_CKSUM_MASK = RTE_MBUF_F_RX_L4_CKSUM_MASK;
static const uint64_t DPDK_RX_L4_CKSUM_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
static const uint64_t DPDK_RX_L4_CKSUM_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;
static const uint64_t DPDK_RX_VLAN_STRIPPED = RTE_MBUF_F_RX_VLAN_STRIPPED;
static const uint64_t DPDK_TX_IP_CKSUM = RTE_MBUF_F_TX_IP_CKSUM;
static const uint64_t DPDK_TX_IPV4 = RTE_MBUF_F_TX_IPV4;
static const uint64_t DPDK_TX_IPV6 = RTE_MBUF_F_TX_IPV6;
static const uint64_t DPDK_TX_TCP_CKSUM = RTE_MBUF_F_TX_TCP_CKSUM;
static const uint64_t DPDK_TX_UDP_CKSUM = RTE_MBUF_F_TX_UDP_CKSUM;
static const uint64_t DPDK_TX_OFFLOAD_MASK = RTE_MBUF_F_TX_OFFLOAD_MASK;
static const uint64_t DPDK_MBUF_F_INDIRECT = RTE_MBUF_F_INDIRECT;
static const uint64_t DPDK_MBUF_F_EXTERNAL = RTE_MBUF_F_EXTERNAL;

static const uint64_t DPDK_ETH_RX_OFFLOAD_IPV4_CKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t DPDK_ETH_RX_OFFLOAD_TCP_CKSUM = RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
static const uint64_t DPDK_ETH_RX_OFFLOAD_UDP_CKSUM = RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t DPDK_ETH_RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t DPDK_ETH_RX_OFFLOAD_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint64_t DPDK_ETH_TX_OFFLOAD_IPV4_CKSUM = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;
static const uint64_t DPDK_ETH_TX_OFFLOAD_TCP_CKSUM = RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
static const uint64_t DPDK_ETH_TX_OFFLOAD_UDP_CKSUM = RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
static const uint64_t DPDK_ETH_TX_OFFLOAD_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t DPDK_ETH_TX_OFFLOAD_MBUF_FAST_FREE = RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;

/* RTE_ETH_RSS_IP leaves TCP and UDP out. */
static const uint64_t DPDK_ETH_RSS_OTHER_IP = RTE_ETH_RSS_IP;
static const uint64_t DPDK_ETH_RSS_TCP_V4 = RTE_ETH_RSS_NONFRAG_IPV4_TCP;
static const uint64_t DPDK_ETH_RSS_UDP_V4 = RTE_ETH_RSS_NONFRAG_IPV4_UDP;
static const uint64_t DPDK_ETH_RSS_TCP_V6 = RTE_ETH_RSS_NONFRAG_IPV6_TCP;
static const uint64_t DPDK_ETH_RSS_UDP_V6 = RTE_ETH_RSS_NONFRAG_IPV6_UDP;
/* The upper 32 bits; the lower ones are zero. bindgen takes no constant of which bit 63 is set. */
static const uint64_t DPDK_ETH_RSS_SOURCE_ONLY_UPPER = (RTE_ETH_RSS_L3_SRC_ONLY | RTE_ETH_RSS_L4_SRC_ONLY) >> 32;
static const uint64_t DPDK_ETH_RSS_DESTINATION_ONLY_UPPER = (RTE_ETH_RSS_L3_DST_ONLY | RTE_ETH_RSS_L4_DST_ONLY) >> 32;

static const uint32_t DPDK_RING_F_SPSC = RING_F_SP_ENQ | RING_F_SC_DEQ;
static const uint32_t DPDK_RING_F_EXACT_SZ = RING_F_EXACT_SZ;
static const uint32_t DPDK_LCORE_ID_ANY = LCORE_ID_ANY;

/* rte_errno of this thread, and the same set. */
int dpdk_shim_errno(void);
void dpdk_shim_set_errno(int value);

/* Makes the descriptor `number` the same as `from`, as dup3() with close-on-exec does: negative on failure. */
int dpdk_shim_duplicate_to(int from, int number);
/* Sets close-on-exec on every descriptor above standard error: negative on failure. */
int dpdk_shim_close_on_exec(void);

unsigned int dpdk_shim_lcore_id(void);
/* The lowest CPU that the lcore may run on, or -1. */
int dpdk_shim_lcore_cpu(unsigned int lcore);
uint64_t dpdk_shim_tsc(void);

uint16_t dpdk_shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);
uint16_t dpdk_shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);

struct rte_mbuf *dpdk_shim_mbuf_alloc(struct rte_mempool *pool);
int dpdk_shim_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **packets, unsigned int count);
void dpdk_shim_mbuf_free(struct rte_mbuf *packet);
/* The pool that the mbuf's own header came from. */
struct rte_mempool *dpdk_shim_mbuf_pool(const struct rte_mbuf *packet);
/* References to the bytes of this segment, whoever owns them. */
uint16_t dpdk_shim_mbuf_references(const struct rte_mbuf *segment);
/* Appends the chain `tail` to `head`: 0 or a negative errno. */
int dpdk_shim_mbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail);
/* Makes the packet one segment: 0, or negative if there is no room. */
int dpdk_shim_mbuf_linearize(struct rte_mbuf *packet);
/* The lengths as the headers at hand read them out of tx_offload. */
void dpdk_shim_mbuf_header_lengths(const struct rte_mbuf *packet, uint16_t *l2_len, uint16_t *l3_len);

unsigned int dpdk_shim_ring_enqueue(struct rte_ring *ring, const void *elements, unsigned int element_size,
				    unsigned int count);
unsigned int dpdk_shim_ring_dequeue(struct rte_ring *ring, void *elements, unsigned int element_size,
				    unsigned int count);
unsigned int dpdk_shim_ring_count(const struct rte_ring *ring);
unsigned int dpdk_shim_ring_capacity(const struct rte_ring *ring);

/* The link of a port, without waiting: 0 or a negative errno. */
int dpdk_shim_link(uint16_t port, uint32_t *speed_mbps, bool *up, bool *full_duplex);

/* Sends what DPDK logs to `sink`: the level of the message (RTE_LOG_*), its
 * bytes. 0 or a negative errno. */
int dpdk_shim_log_to(void (*sink)(uint32_t level, const char *text, size_t len));

#endif
