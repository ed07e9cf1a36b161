// SPDX-License-Identifier: GPL-3.0-or-later

// What a cluster's network and storage plugins do besides the plain work: addons NODE KUBECONFIG.
// The judgement on network policies is that of the Kubernetes project's own kube-network-policies; here the kernel's
// packets are handed to it by iptables, because its own rules need a kernel with nftables queues.
package main

import (
	"context"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	config, err := clientcmd.BuildConfigFromFlags("", os.Args[2])
	check(err)
	client, err := kubernetes.NewForConfig(config)
	check(err)
	factory := informers.NewSharedInformerFactory(client, 0)
	check(openVolumes(factory))
	check(growVolumes(ctx, client, factory))
	judge, err := policies(os.Args[1], factory)
	check(err)
	factory.Start(ctx.Done())
	for !judge.Ready() {
		time.Sleep(100 * time.Millisecond)
	}
	check(serve(ctx, judge))
	<-ctx.Done()
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
