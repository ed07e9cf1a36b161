// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"context"
	"log"

	"github.com/florianl/go-nfqueue/v2"
	"k8s.io/client-go/informers"
	"sigs.k8s.io/kube-network-policies/pkg/api"
	"sigs.k8s.io/kube-network-policies/pkg/network"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
	"sigs.k8s.io/kube-network-policies/pkg/podinfo"
)

const queue = 100

func policies(node string, factory informers.SharedInformerFactory) (*networkpolicy.PolicyEngine, error) {
	pods, namespaces := factory.Core().V1().Pods(), factory.Core().V1().Namespaces()
	addresses, err := podinfo.NewInformerResolver(pods.Informer())
	if err != nil {
		return nil, err
	}
	known := podinfo.NewInformerProvider(pods, namespaces, nil, []podinfo.IPResolver{addresses})
	standard := networkpolicy.NewStandardNetworkPolicy(node, namespaces, pods, factory.Networking().V1().NetworkPolicies())
	return networkpolicy.NewPolicyEngine(known, []api.PolicyEvaluator{standard}), nil
}

// serve judges the first packet of each connection. While nobody serves, the kernel drops them.
func serve(ctx context.Context, judge *networkpolicy.PolicyEngine) error {
	settings := nfqueue.Config{NfQueue: queue, MaxPacketLen: 128, MaxQueueLen: 1024, Copymode: nfqueue.NfQnlCopyPacket,
		Flags: nfqueue.NfQaCfgFlagGSO}
	packets, err := nfqueue.Open(&settings)
	if err != nil {
		return err
	}
	allowed := func(payload []byte) bool {
		packet, err := network.ParsePacket(payload)
		if err != nil {
			return false
		}
		verdict, err := judge.EvaluatePacket(ctx, &packet)
		if err != nil || !verdict {
			log.Print("refused: ", packet.String())
		}
		return err == nil && verdict
	}
	answer := func(found nfqueue.Attribute) int {
		verdict := nfqueue.NfDrop
		if allowed(*found.Payload) {
			verdict = nfqueue.NfAccept
		}
		if err := packets.SetVerdict(*found.PacketID, verdict); err != nil {
			log.Print(err)
		}
		return 0
	}
	return packets.RegisterWithErrorFunc(ctx, answer, func(err error) int {
		log.Print(err)
		return 0
	})
}
