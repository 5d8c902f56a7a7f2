/* DPDK's inline functions and macros, as functions that Rust can call. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include "shim.h"

#define FIELD_IS(field, bytes) \
	_Static_assert(sizeof(((struct rte_mbuf *)0)->field) == (bytes), "the width of rte_mbuf." #field)
FIELD_IS(buf_addr, sizeof(void *));
FIELD_IS(data_off, 2);
FIELD_IS(refcnt, 2);
FIELD_IS(nb_segs, 2);
FIELD_IS(port, 2);
FIELD_IS(ol_flags, 8);
FIELD_IS(pkt_len, 4);
FIELD_IS(data_len, 2);
FIELD_IS(vlan_tci, 2);
FIELD_IS(buf_len, 2);
FIELD_IS(next, sizeof(void *));
FIELD_IS(tx_offload, 8);

int dpdk_shim_errno(void)
{
	return rte_errno;
}

void dpdk_shim_set_errno(int value)
{
	rte_errno = value;
}

int dpdk_shim_duplicate_to(int from, int number)
{
	return dup3(from, number, O_CLOEXEC);
}

int dpdk_shim_close_on_exec(void)
{
	return close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
}

unsigned int dpdk_shim_lcore_id(void)
{
	return rte_lcore_id();
}

int dpdk_shim_lcore_cpu(unsigned int lcore)
{
	rte_cpuset_t cpus;
	int cpu;

	if (lcore >= RTE_MAX_LCORE)
		return -1;
	cpus = rte_lcore_cpuset(lcore);
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &cpus))
			return cpu;
	return -1;
}

uint64_t dpdk_shim_tsc(void)
{
	return rte_rdtsc();
}

uint16_t dpdk_shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, packets, count);
}

uint16_t dpdk_shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, packets, count);
}

struct rte_mbuf *dpdk_shim_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

int dpdk_shim_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **packets, unsigned int count)
{
	return rte_pktmbuf_alloc_bulk(pool, packets, count);
}

void dpdk_shim_mbuf_free(struct rte_mbuf *packet)
{
	rte_pktmbuf_free(packet);
}

struct rte_mempool *dpdk_shim_mbuf_pool(const struct rte_mbuf *packet)
{
	return packet->pool;
}

uint16_t dpdk_shim_mbuf_references(const struct rte_mbuf *segment)
{
	if (RTE_MBUF_HAS_EXTBUF(segment))
		return rte_mbuf_ext_refcnt_read(segment->shinfo);
	if (RTE_MBUF_CLONED(segment))
		return rte_mbuf_refcnt_read(rte_mbuf_from_indirect((struct rte_mbuf *)(uintptr_t)segment));
	return rte_mbuf_refcnt_read(segment);
}

int dpdk_shim_mbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail)
{
	return rte_pktmbuf_chain(head, tail);
}

int dpdk_shim_mbuf_linearize(struct rte_mbuf *packet)
{
	return rte_pktmbuf_linearize(packet);
}

void dpdk_shim_mbuf_header_lengths(const struct rte_mbuf *packet, uint16_t *l2_len, uint16_t *l3_len)
{
	*l2_len = packet->l2_len;
	*l3_len = packet->l3_len;
}

/* What a ring's two ends write is on lines of their own, two apart, since processors fetch them in pairs; and
 * neither is on a line of what both read. */
_Static_assert(offsetof(struct rte_ring, prod) >= offsetof(struct rte_ring, capacity) + RTE_CACHE_LINE_SIZE,
	"a ring's producer writes beside what its consumer reads");
_Static_assert(offsetof(struct rte_ring, cons) >= offsetof(struct rte_ring, prod) + 2 * RTE_CACHE_LINE_SIZE,
	"a ring's producer and its consumer write beside each other");
_Static_assert(sizeof(struct rte_ring) >= offsetof(struct rte_ring, cons) + 2 * RTE_CACHE_LINE_SIZE,
	"a ring's consumer writes beside its values");

unsigned int dpdk_shim_ring_enqueue(struct rte_ring *ring, const void *elements, unsigned int element_size,
				    unsigned int count)
{
	return rte_ring_sp_enqueue_burst_elem(ring, elements, element_size, count, NULL);
}

unsigned int dpdk_shim_ring_dequeue(struct rte_ring *ring, void *elements, unsigned int element_size,
				    unsigned int count)
{
	return rte_ring_sc_dequeue_burst_elem(ring, elements, element_size, count, NULL);
}

unsigned int dpdk_shim_ring_count(const struct rte_ring *ring)
{
	return rte_ring_count(ring);
}

unsigned int dpdk_shim_ring_capacity(const struct rte_ring *ring)
{
	return rte_ring_get_capacity(ring);
}

int dpdk_shim_link(uint16_t port, uint32_t *speed_mbps, bool *up, bool *full_duplex)
{
	struct rte_eth_link link = {0};
	int ret = rte_eth_link_get_nowait(port, &link);

	if (ret < 0)
		return ret;
	*speed_mbps = link.link_speed;
	*up = link.link_status == RTE_ETH_LINK_UP;
	*full_duplex = link.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
	return 0;
}

static void (*log_sink)(uint32_t level, const char *text, size_t len);

static ssize_t log_write(void *cookie, const char *text, size_t len)
{
	int level = rte_log_cur_msg_loglevel();

	(void)cookie;
	log_sink(level < 0 ? RTE_LOG_INFO : (uint32_t)level, text, len);
	return (ssize_t)len;
}

int dpdk_shim_log_to(void (*sink)(uint32_t level, const char *text, size_t len))
{
	cookie_io_functions_t functions = {.write = log_write};
	FILE *stream;

	log_sink = sink;
	stream = fopencookie(NULL, "w", functions);
	if (stream == NULL)
		return -ENOMEM;
	setvbuf(stream, NULL, _IOLBF, 1024);
	return rte_openlog_stream(stream);
}
